"""What one owner holds: the book, and the writers that bring it to the window and to rows."""

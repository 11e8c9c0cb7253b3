"""The live stream: the newest update of each pair to many clients."""

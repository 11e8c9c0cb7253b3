"""The commands, a module for each kind. They import what they run when they run it, so that help is quick."""

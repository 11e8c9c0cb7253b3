"""The commands, a module for each kind. They import what they need when they run, so that help is fast."""

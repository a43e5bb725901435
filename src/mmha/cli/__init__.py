"""The command line. Modules here import nothing heavy at the top; each command imports what it needs when it runs."""

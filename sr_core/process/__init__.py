"""Support for processes: terminals, locks, durable files, memory and the machine."""

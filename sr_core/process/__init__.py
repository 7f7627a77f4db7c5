"""What a process needs around its work: terminals, locks, durable files, memory and the machine."""

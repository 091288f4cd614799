"""What every daemon owes systemd: events in the journal, notifications, its process."""

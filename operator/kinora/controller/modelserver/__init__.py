"""Decisions about ModelServers: snapshot -> refuse, desired children, status. No I/O, clock or randomness."""

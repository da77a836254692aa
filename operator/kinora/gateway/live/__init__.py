"""What engines say of renders while they go on, for whoever listens: streams from the agents, best effort."""

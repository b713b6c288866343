"""What both commands need: settings files, logging, the packet loop."""

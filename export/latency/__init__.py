"""What a restored frame costs on this host, measured side by side."""

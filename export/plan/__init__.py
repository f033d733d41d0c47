"""Before training: what a student would cost a device, estimated."""

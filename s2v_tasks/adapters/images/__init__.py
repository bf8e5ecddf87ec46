"""Images: untrusted bytes are decoded in child processes under limits, never in this one."""

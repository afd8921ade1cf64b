"""One suite per port: what an adapter, ours or yours, must do to be one."""

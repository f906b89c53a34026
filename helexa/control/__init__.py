"""The control socket: its protocol, its server, and the client side of `helexa-ctl`."""

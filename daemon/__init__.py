"""The server: transports, wire protocol, sessions, supervision."""

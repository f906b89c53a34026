"""HTTP: the server and its doors, and one module per listener."""

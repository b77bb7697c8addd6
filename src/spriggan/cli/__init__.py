"""The command line. It talks to the server like any other client."""

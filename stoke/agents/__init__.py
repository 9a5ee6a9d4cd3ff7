"""What coding agents use: the MCP server of `stoke mcp`, and the skill file of `stoke setup agent`."""

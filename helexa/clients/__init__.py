"""Ready configurations for the programs that people point at helexa.

offer     what a gateway offers: its address, its models, their real limits
agents    opencode, Claude Code, Codex, Zed
programs  Continue, aider, llm, Agent Zero, Open WebUI, LiteLLM
notation  YAML and TOML, as far as these files need them
listing   asking the gateway
command   `helexa client-config`
"""

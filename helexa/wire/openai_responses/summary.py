"""A request for a summary in place of an answer, so that a conversation can go on when it is too long."""

from attrs import evolve

from helexa.conversation import Message, Text, Thinking, ToolChoice
from helexa.wire.openai_responses.asked import Asked

MAX_SUMMARY_TOKENS = 4096
TASK = """\
This conversation is about to be replaced by a summary of it. Write that summary now, for somebody who \
goes on with the work and has read nothing of the above. Tell:
- what the user wants, with every rule and preference that still holds;
- what was done and decided, and why;
- what was learned: names of files, commands, identifiers, numbers, errors, exactly as they are;
- what is left to do, and what comes next.
Write the summary alone, with no words before or after it. Call no tools."""


def ask_for_summary(asked: Asked) -> Asked:
    """The tools stay in sight, so that what is cached of the conversation's beginning still counts."""
    conversation = asked.conversation
    task = Message("user", (Text(TASK),))
    short = evolve(
        conversation,
        messages=(*conversation.messages, task),
        tool_choice=ToolChoice("none"),
        format=None,
        thinking=Thinking(enabled=False),
        max_tokens=min(conversation.max_tokens or MAX_SUMMARY_TOKENS, MAX_SUMMARY_TOKENS),
    )
    return evolve(asked, conversation=short, compacts=True)

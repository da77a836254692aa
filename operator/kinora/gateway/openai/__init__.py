"""The dialect of OpenAI's /v1/videos, as the `openai` package has it. Knows no other dialect."""

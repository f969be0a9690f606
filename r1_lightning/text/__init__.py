"""String processing (tokenizer, chat template, tags, answers, language) without torch, so that every process can import it fast."""

"""Pure string work (tokenizer, chat template, tags, answers, language): no torch, so that any process can afford it."""

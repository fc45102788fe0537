"""The terminal chat: `chatlib chat --as alice`. Nothing here is imported by `import chatlib`.

`Client` is what happens (send, receive, commands); a screen is how it looks: `PlainScreen` (lines, for pipes) or
`PromptScreen` (line editing and live ticks, for a terminal). `Line` stands between them: what is shown, as styled pieces.
"""

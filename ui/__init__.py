"""`cogguided ui`: a page to work in, on this machine, by Gradio (extra `ui`)."""

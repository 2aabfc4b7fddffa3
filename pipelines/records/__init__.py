"""What a call made: its record, the trace behind it, the contact sheet, and how it is made again."""

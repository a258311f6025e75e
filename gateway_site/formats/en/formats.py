"""Dates as every reader reads them the same way: months as words, and times with their zone.

The administration shows every time by these, so it agrees with the log, which is in UTC too.
Seconds, because events are compared with log lines.
"""

DATE_FORMAT = SHORT_DATE_FORMAT = "j M Y"
TIME_FORMAT = "H:i:s T"
DATETIME_FORMAT = SHORT_DATETIME_FORMAT = "j M Y, H:i:s T"

"""Where records and images of watched frames go; none of them stalls the loop that watches.

background.py  a bounded queue and a thread in front of a sink
lines.py       JSON Lines and CSV: files that grow line by line, and standard output
mqtt.py        messages to an MQTT broker
webhook.py     POST requests with batches of records
overlay.py     boxes and labels on a frame, and faces made unrecognisable
video.py       a video of these frames
window.py      a window on the screen
terminal.py    a status line
opening.py     all that are configured, as one object
"""

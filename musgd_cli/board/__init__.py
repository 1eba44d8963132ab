"""What is copied to boards that cannot run musgd, and runs there alone.

Nothing here imports the rest of musgd, and nothing but the standard library.
"""

import os

NANO_AGENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nano_agent.py")
"""The file that a Jetson with JetPack 4.6 gets."""

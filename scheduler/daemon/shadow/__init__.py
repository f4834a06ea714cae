"""The shadow: another configuration's engine hears what the live one hears, and simulated backends answer it.

It may import the simulator, whose backends it uses. It sends nothing, spends nothing, and keeps nothing.
"""

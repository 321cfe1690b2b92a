"""`python -m sync.sandbox.apns`: the simulator as a process of the sandbox; the same as `convsync apns-simulator`."""

from sync.sandbox.apns.command import simulator

if __name__ == "__main__":
    simulator()

"""The camera process and its supervisor; GenICam, folder and simulated cameras."""

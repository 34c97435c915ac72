"""What the Makefile and the wheel's build run; standard library only, since it runs before anything is installed."""

ARG A=1
# nothing else

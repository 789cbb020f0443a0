# What the library and its tests share: EP_WARNINGS, and EP_L0, the files that know neither Erlang nor
# Python.
set(EP_L0 queue.c seat.c slots.c stack.c thread.c timer.c)
set(EP_WARNINGS
    -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wundef
    -Wformat=2 -Wnull-dereference -Wcast-qual -Wswitch-enum -Wimplicit-fallthrough)
if(WERROR)
    list(APPEND EP_WARNINGS -Werror)
endif()

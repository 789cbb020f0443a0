# Sets EP_ERLANG_RELEASE and EP_ERLANG_INCLUDE, the folder of erl_nif.h, by asking erl.
find_program(ERL erl REQUIRED NO_CACHE)
execute_process(
    COMMAND "${ERL}" -noshell -eval
        "io:format(\"~ts;~ts;~ts\", [code:root_dir(), erlang:system_info(version), erlang:system_info(otp_release)]), halt()."
    OUTPUT_VARIABLE answer
    RESULT_VARIABLE status)
if(NOT status EQUAL 0)
    message(FATAL_ERROR "${ERL} does not run")
endif()
list(GET answer 0 root)
list(GET answer 1 erts)
list(GET answer 2 EP_ERLANG_RELEASE)

find_path(EP_ERLANG_INCLUDE erl_nif.h NO_CACHE NO_DEFAULT_PATH
    PATHS "${root}/erts-${erts}/include" "${root}/usr/include")
if(NOT EP_ERLANG_INCLUDE)
    message(FATAL_ERROR "erl_nif.h is not in ${root}: install Erlang's headers (Debian: erlang-dev)")
endif()

%% Raises `badarg` out of the function it stands in, with a sentence that the shell prints. Unlike a
%% call of py_options:misuse/1 it may stand last: the function heads the stack all the same.
-define(MISUSE(Sentence),
        erlang:error(badarg, none, [{error_info, #{module => py_options, cause => Sentence}}])).

-module(reentrant_demo).

%% @doc Python calls Erlang, which calls Python, which calls Erlang ...
%%
%%     $ rebar3 as test shell
%%     1> reentrant_demo:start().
%%     2> reentrant_demo:demo_all().
%%
%% The functions that Python calls are registered in start/0, the Python side is reentrant_demo.py.

-export([start/0, demo_all/0]).
-export([demo_arithmetic/0, demo_fibonacci/0, demo_nested/0, demo_methods/0]).

-define(MEMORY, ?MODULE).

%% Starts the application, registers the functions and loads the Python side into the namespace of
%% the calling process.
-spec start() -> ok.
start() ->
    {ok, _} = application:ensure_all_started(erlang_python),
    [ok = py:register_function(Name, Fun)
     || {Name, Fun} <- [{demo_operate, fun operate/1}, {demo_fibonacci, fun fibonacci/1},
                        {demo_descend, fun descend/1}, {demo_approve, fun approve/1},
                        {demo_transfer, fun transfer/1}]],
    {ok, Code} = file:read_file(python_side()),
    ok = py:exec(Code).

%% Beside the compiled module, or beside its source.
python_side() ->
    Source = proplists:get_value(source, module_info(compile), ""),
    Files = [filename:join(filename:dirname(File), "reentrant_demo.py")
             || File <- [code:which(?MODULE), Source], is_list(File)],
    hd([File || File <- Files, filelib:is_regular(File)]).

%% Shows all; what it returns says whether everything was as it should be.
-spec demo_all() -> ok.
demo_all() ->
    ok = demo_arithmetic(),
    ok = demo_fibonacci(),
    ok = demo_nested(),
    ok = demo_methods().

%% ------------------------------------------------------------------------------------------
%% Arithmetic: Python takes an expression apart, Erlang computes, Python evaluates the operands.
%% ------------------------------------------------------------------------------------------

-spec demo_arithmetic() -> ok.
demo_arithmetic() ->
    title("Arithmetic: each operator is computed in Erlang, each operand in Python"),
    [begin
         {ok, Value} = py:call('__main__', evaluate, [Expression]),
         show("~ts = ~p", [text(Expression), Value]),
         Expected = Value
     end || {Expression, Expected} <- [{{'+', 1, 2}, 3},
                                       {{'*', {'+', 1, 2}, {'-', 10, 4}}, 18},
                                       {{'-', {'*', {'+', 1, 2}, {'*', 3, {'+', 4, 5}}}, 1}, 80}]],
    ok.

operate([Operator, Left, Right]) ->
    {ok, L} = py:call('__main__', evaluate, [Left]),
    {ok, R} = py:call('__main__', evaluate, [Right]),
    case Operator of
        <<"+">> -> L + R;
        <<"-">> -> L - R;
        <<"*">> -> L * R
    end.

text({Operator, Left, Right}) -> io_lib:format("(~ts ~ts ~ts)", [text(Left), Operator, text(Right)]);
text(Number) -> integer_to_list(Number).

%% ------------------------------------------------------------------------------------------
%% Fibonacci: Python computes, Erlang remembers, so that each number is computed once.
%% ------------------------------------------------------------------------------------------

-spec demo_fibonacci() -> ok.
demo_fibonacci() ->
    title("Fibonacci: Python computes, Erlang remembers"),
    ?MEMORY = ets:new(?MEMORY, [named_table, public]),
    try
        [begin
             Before = ets:info(?MEMORY, size),
             {Time, {ok, Value}} = timer:tc(py, call, ['__main__', fibonacci, [N]]),
             show("fibonacci(~b) = ~b   (~b computed, ~.1f ms)",
                  [N, Value, ets:info(?MEMORY, size) - Before, Time / 1000]),
             Expected = Value
         end || {N, Expected} <- [{10, 55}, {50, 12586269025}, {80, 23416728348467685}]],
        81 = ets:info(?MEMORY, size),
        ok
    after
        ets:delete(?MEMORY)
    end.

fibonacci([N]) ->
    case ets:lookup(?MEMORY, N) of
        [{N, Value}] ->
            Value;
        [] ->
            {ok, Value} = py:call('__main__', fibonacci_step, [N]),
            true = ets:insert(?MEMORY, {N, Value}),
            Value
    end.

%% ------------------------------------------------------------------------------------------
%% Depth: Python, Erlang, Python, Erlang ... and all the way back.
%% ------------------------------------------------------------------------------------------

-spec demo_nested() -> ok.
demo_nested() ->
    title("Nesting: down by way of Erlang, level by level, and back"),
    [begin
         {Time, {ok, Path}} = timer:tc(py, call, ['__main__', descend, [1, Depth, []]]),
         show("~b levels: ~ts ... ~ts   (~.1f ms)",
              [Depth, lists:join(" > ", lists:sublist(Path, 4)), lists:last(Path), Time / 1000]),
         Depth = length(Path) div 2
     end || Depth <- [3, 12, 100]],
    ok.

descend([Level, Bottom, Path]) ->
    Here = Path ++ [unicode:characters_to_binary(io_lib:format("erlang ~b", [Level]))],
    case Level < Bottom of
        true ->
            {ok, Back} = py:call('__main__', descend, [Level + 1, Bottom, Here]),
            Back;
        false ->
            Here
    end.

%% ------------------------------------------------------------------------------------------
%% Methods: Python objects come to Erlang as handles; Erlang calls their methods.
%% ------------------------------------------------------------------------------------------

-spec demo_methods() -> ok.
demo_methods() ->
    title("Methods: Erlang decides about transfers and calls the accounts' methods"),
    {ok, Report} = py:call('__main__', transfers, []),
    #{<<"joe">> := Joe, <<"mike">> := Mike, <<"entries">> := Entries, <<"refusal">> := Refusal} =
        Report,
    show("Joe has ~b, Mike ~b; entries ~w", [Joe, Mike, Entries]),
    show("the last transfer was refused: ~ts", [Refusal]),
    {115, 5, [[-30, 45], [30, -45]], <<"Mike: only 5 available">>} = {Joe, Mike, Entries, Refusal},
    ok.

transfer([From, To, Amount]) ->
    case py:call(From, withdraw, [Amount]) of
        {ok, none} ->
            {ok, none} = py:call(To, deposit, [Amount]),
            none;
        {error, {'ValueError', Why}} ->
            throw(unicode:characters_to_binary(Why))
    end.

approve([Account, <<"withdraw">>, Amount]) ->
    case py:call(Account, available, []) of
        {ok, Available} when Available >= Amount -> approved;
        {ok, Available} -> unicode:characters_to_binary(io_lib:format("only ~b available", [Available]))
    end.

%% ------------------------------------------------------------------------------------------

title(Title) ->
    io:format("~n~ts~n", [Title]).

show(Format, Values) ->
    io:format("  " ++ Format ++ "~n", Values).

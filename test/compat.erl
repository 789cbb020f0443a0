-module(compat).

%% @doc What each mode makes of the standard library's modules, numpy and pandas, on each Python: the
%% facts behind docs/compatibility.md. `bin/compat' looks, with one Python at a time; what it found lies in
%% test/data/compat, a file for each Python, and the page's tables are made of those files.
%%
%% A result is `yes'; `{pure, Missing}': it loads, but does without these C modules, in plain Python;
%% `main': refused in a sub-interpreter, code without a context is placed where it loads; `no': refused,
%% and not placed; `crash': the VM ended.

-export([main/1, importable/1, look/2, consult/1, spec/0, tables/1, between_marks/2]).
%% In the peer.
-export([probe/3]).

-define(EXTRA, ["concurrent.futures", "concurrent.interpreters", "compression.zstd", "xml.etree.ElementTree",
                "xml.parsers.expat", "xml.sax", "http.server", "urllib.request", "multiprocessing.pool",
                "logging.handlers", "email.message", "importlib.metadata", "curses.panel", "numpy", "pandas"]).
%% They print, open windows or browsers, or are no library.
-define(LEFT_OUT, ["antigravity", "this", "test", "idlelib", "turtledemo", "lib2to3"]).
-define(MAIN_MODES, [worker, multi_executor, free_threaded]).
-define(BEGINNING, "<!-- by bin/compat -->").
-define(END, "<!-- end -->").

%% `look Top': with this Python, into its file. `write Top': the page, and the tables to the terminal.
main(["look", Top]) ->
    {ok, _} = application:ensure_all_started(erlang_python),
    Spec = spec(),
    {ok, Version} = py:version(),
    Modules = importable(candidates()),
    ok = application:stop(erlang_python),
    Results = look(Modules),
    File = filename:join([Top, "test/data/compat", Spec ++ ".term"]),
    ok = filelib:ensure_dir(File),
    ok = file:write_file(File, [io_lib:format("~tp.~n", [Term], [{encoding, unicode}])
                                || Term <- [{version, binary_to_list(Version)} | Results]]),
    halt(0);
main(["write", Top]) ->
    Page = filename:join(Top, "docs/compatibility.md"),
    {ok, Text} = file:read_file(Page),
    Tables = tables(Top),
    ok = file:write_file(Page, between_marks(Text, Tables)),
    io:put_chars(Tables),
    halt(0).

%% 3.13, or 3.13t.
spec() ->
    {ok, Version} = py:version(),
    [Major, Minor | _] = string:lexemes(binary_to_list(Version), "."),
    Major ++ "." ++ Minor ++ case py:free_threaded() of true -> "t"; false -> "" end.

%% What was found with one Python: {Version, #{Module => #{Mode => Result}}}.
consult(File) ->
    {ok, [{version, Version} | Results]} = file:consult(File),
    {Version, maps:from_list([{Module, maps:from_list(Modes)} || {Module, Modes} <- Results])}.

%% ------------------------------------------------------------------------------------------
%% Looking
%% ------------------------------------------------------------------------------------------

candidates() ->
    {ok, Names} = py:eval(<<"sorted(getattr(__import__('sys'), 'stdlib_module_names', ()))">>),
    lists:usort([binary_to_list(Name) || <<C, _/binary>> = Name <- Names, C =/= $_] ++ ?EXTRA) -- ?LEFT_OUT.

%% {Module, the C modules that come with it} of those that a plain process of this Python can import.
importable(Names) ->
    {ok, Python} = py:eval(<<"__import__('sys').executable">>),
    [{Name, Extensions} || Name <- Names, {ok, Extensions} <- [in_a_process(Python, Name)]].

in_a_process(Python, Name) ->
    Code = ["import sys, warnings; warnings.simplefilter('ignore'); import ", Name, "\n"
            "print('\\n!', *[n for n, m in list(sys.modules.items())"
            " if (getattr(getattr(m, '__spec__', None), 'origin', None) or '').endswith('.so')])"],
    Port = open_port({spawn_executable, binary_to_list(Python)},
                     [{args, ["-c", iolist_to_binary(Code)]}, exit_status, binary, stderr_to_stdout]),
    case output(Port, <<>>) of
        {0, Output} ->
            [Last | _] = lists:reverse(string:lexemes(Output, "\n")),
            ["!" | Extensions] = string:lexemes(binary_to_list(Last), " "),
            {ok, Extensions};
        _ ->
            none
    end.

output(Port, Output) ->
    receive
        {Port, {data, More}} -> output(Port, <<Output/binary, More/binary>>);
        {Port, {exit_status, Status}} -> {Status, Output}
    end.

%% [{Module, [{Mode, Result}]}] of {Module, Extensions}, every mode in VMs of its own.
look(Modules) ->
    {ok, _} = application:ensure_all_started(erlang_python),
    Modes = py_modes:modes(),
    ok = application:stop(erlang_python),
    ByMode = [{Mode, look(Mode, Modules)} || Mode <- Modes],
    [{Name, [{Mode, proplists:get_value(Name, Results)} || {Mode, Results} <- ByMode]}
     || {Name, _} <- Modules].

%% [{Module, Result}] in one mode.
look(Mode, Modules) ->
    look(Mode, Modules, none).

look(_Mode, [], none) ->
    [];
look(_Mode, [], Peer) ->
    py_peer:stop(Peer),
    [];
look(Mode, Modules, none) ->
    look(Mode, Modules, py_peer:start(Mode, [{num_contexts, 1}]));
look(Mode, [{Name, Extensions} | Rest], Peer) ->
    try py_peer:call(Peer, ?MODULE, probe, [Mode, Name, Extensions]) of
        Result -> [{Name, Result} | look(Mode, Rest, Peer)]
    catch
        error:{the_vm_ended, _, _, Reason} ->
            io:format(standard_error, "~ts, ~ts: ~p~n", [Name, Mode, Reason]),
            py_peer:stop(Peer),
            [{Name, again(Mode, Name, Extensions)} | look(Mode, Rest, none)]
    end.

%% Whether it is the module that ends the VM, and not all that happened before.
again(Mode, Name, Extensions) ->
    Peer = py_peer:start(Mode, [{num_contexts, 1}]),
    try py_peer:call(Peer, ?MODULE, probe, [Mode, Name, Extensions])
    catch
        error:{the_vm_ended, _, _, _} -> crash
    after
        py_peer:stop(Peer)
    end.

%% In a context that loaded nothing else.
probe(Mode, Name, Extensions) ->
    {ok, Ctx} = py_context:new(#{mode => Mode}),
    Result = case py:exec(Ctx, import(Name)) of
                 ok -> without(Ctx, Extensions);
                 {error, _} -> placed(Name)
             end,
    ok = py_context:stop(Ctx),
    Result.

import(Name) ->
    ["import warnings; warnings.simplefilter('ignore'); import ", Name].

without(Ctx, Extensions) ->
    {ok, Missing} = py:eval(Ctx, <<"[n for n in names if n not in __import__('sys').modules]">>,
                            #{names => [list_to_binary(E) || E <- Extensions]}),
    case Missing of
        [] -> yes;
        _ -> {pure, [binary_to_list(E) || E <- Missing]}
    end.

placed(Name) ->
    case py_modes:at_once([fun() -> py:exec(import(Name)) end]) of
        [ok] -> main;
        [{error, _}] -> no
    end.

%% ------------------------------------------------------------------------------------------
%% The page
%% ------------------------------------------------------------------------------------------

between_marks(Page, Tables) ->
    [Before, Rest] = string:split(Page, ?BEGINNING),
    [_, After] = string:split(Rest, ?END),
    unicode:characters_to_binary([Before, ?BEGINNING, "\n", Tables, ?END, After]).

%% The tables that the files of test/data/compat make.
tables(Top) ->
    Files = filelib:wildcard(filename:join(Top, "test/data/compat/*.term")),
    Pythons = lists:sort(fun({A, _, _}, {B, _, _}) -> order(A) =< order(B) end,
                         [{filename:basename(File, ".term"), Version, Results}
                          || File <- Files, {Version, Results} <- [consult(File)]]),
    Modules = lists:usort(lists:append([maps:keys(Results) || {_, _, Results} <- Pythons])),
    {Fine, Rest} = lists:partition(
                       fun(Module) ->
                           lists:all(fun({_, _, Results}) -> is_fine(maps:get(Module, Results, #{})) end, Pythons)
                       end, Modules),
    unicode:characters_to_binary(
        ["\n| module |", [[" ", Spec, " |"] || {Spec, _, _} <- Pythons], "\n|---|", ["---|" || _ <- Pythons], "\n",
         [["| `", Module, "` |", [[" ", cell(maps:get(Module, Results, #{})), " |"] || {_, _, Results} <- Pythons],
           "\n"] || Module <- Rest],
         "\nLooked at with ", lists:join(", ", [version(Python) || Python <- Pythons]), ".\n",
         "\nThese load in every mode of every one of those Pythons that has them: ",
         lists:join(", ", [["`", Module, "`"] || Module <- Fine]), ".\n",
         [own_gil(Python) || {"3.12", _, _} = Python <- Pythons]]).

order(Spec) ->
    [Major, Minor] = string:lexemes(Spec, "."),
    {list_to_integer(Major), string:to_integer(Minor)}.

version({Spec, Version, _}) ->
    [Version, case lists:last(Spec) of $t -> " free-threaded"; _ -> "" end].

is_fine(Modes) ->
    lists:all(fun(Result) -> Result =:= yes end, maps:values(Modes)).

cell(Modes) when map_size(Modes) =:= 0 ->
    "-";
cell(Modes) ->
    Words = [{Mode, word(Result)} || {Mode, Result} <- lists:sort(maps:to_list(Modes)), Result =/= yes],
    Subs = [Word || {Mode, Word} <- Words, not lists:member(Mode, ?MAIN_MODES)],
    case {Words, lists:usort(Subs)} of
        {[], _} -> "yes";
        {_, [Word]} when length(Subs) =:= 2, length(Words) =:= 2 -> Word;
        _ -> lists:join("; ", [[atom_to_list(Mode), ": ", Word] || {Mode, Word} <- Words])
    end.

word({pure, Missing}) -> ["without ", lists:join(", ", [["`", E, "`"] || E <- Missing])];
word(Result) -> atom_to_list(Result).

own_gil({Spec, _, Results}) ->
    Of = fun(Is) -> [["`", Module, "`"] || {Module, #{owngil := Result}} <- lists:sort(maps:to_list(Results)), Is(Result)] end,
    ["\nAn interpreter with its own GIL of ", Spec, " cannot load ",
     lists:join(", ", Of(fun(Result) -> Result =:= main orelse Result =:= no end)),
     "; without a C module of theirs it loads ",
     lists:join(", ", Of(fun(Result) -> is_tuple(Result) end)), ".\n"].

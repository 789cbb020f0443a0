-module(extension_SUITE).

%% @doc Extension modules that a sub-interpreter cannot load: they work without a context all the
%% same, the main interpreter is never broken by a first import elsewhere, and the error says what
%% helps. Every case builds modules of its own, since a process remembers what it once loaded.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

-define(KINDS, [single_phase, multi_phase, only_once]).

all() ->
    py_modes:all().

groups() ->
    py_modes:groups([
        call_without_context, first_exec, first_exec_in_all_shapes, first_eval, later_exec,
        explicit_context, context_first, bound_process, callback,
        spawn_call, cast, parallel, pools, handles,
        package, dotted, dependent_package, hidden_refusal, later_refusal, optional_dependency, broken,
        imports_setting, path_of_one_context, threads, standard_modules, gil_stays_off,
        gil_comes_back, numpy
    ]).

init_per_group(Mode, Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(Mode)),
    ok = filelib:ensure_dir(filename:join(Dir, "any")),
    ok = py_modes:start(Mode, [{paths, [Dir]}]),
    [{mode, Mode}, {dir, Dir} | Config].

end_per_group(Mode, Config) ->
    py_modes:end_per_group(Mode, Config).

init_per_testcase(_Case, Config) ->
    Config.

end_per_testcase(_Case, Config) ->
    case {proplists:get_value(tc_status, Config), py_modes:messages()} of
        {ok, [_ | _] = Messages} -> {fail, {left_behind, Messages}};
        _ -> ok
    end.

%% ------------------------------------------------------------------------------------------
%% Without a context
%% ------------------------------------------------------------------------------------------

%% From ten processes at once, ten times each; the first of them meet while it is imported.
call_without_context(Config) ->
    [begin
         Name = extension(Kind, Config),
         Calls = fun() -> [py:call(Name, f, []) || _ <- lists:seq(1, 10)] end,
         ?assertEqual(lists:duplicate(10, lists:duplicate(10, {ok, 42})),
                      py_modes:at_once(lists:duplicate(10, Calls)), Kind),
         main_is_sane(Name)
     end || Kind <- ?KINDS].

%% The first code of a process places it where its imports work, and there it stays.
first_exec(Config) ->
    [begin
         Name = extension(Kind, Config),
         [ok, ok] = py_modes:at_once(lists:duplicate(2, fun() ->
             ok = py:exec(["import ", Name, "\nx = ", Name, ".f()\n"]),
             ?assertEqual({ok, 42}, py:eval(<<"x">>)),
             ?assertEqual({ok, 43}, py:eval([Name, ".f() + 1"])),
             ?assertEqual(is_refused(Kind, Config) orelse is_main(Config), in_main(py:context())),
             ok = py:exec([<<"def g(): return ">>, Name, ".f() + 2"]),
             ?assertEqual({ok, 44}, py:call('__main__', g, [])),
             ok
         end)),
         main_is_sane(Name)
     end || Kind <- ?KINDS].

first_exec_in_all_shapes(Config) ->
    [begin
         Name = extension(single_phase, Config),
         ?assertEqual([{ok, 42}], py_modes:at_once([fun() ->
             ok = py:exec(re:replace(Code, "EXT", Name, [global, {return, binary}])),
             py:eval(<<"x">>)
         end]), Code)
     end || Code <- [<<"import json, EXT as e\nx = e.f()">>,
                     <<"from EXT import f\nx = f()">>,
                     <<"from EXT import *\nx = f()">>,
                     <<"import os.path; import EXT; x = EXT.f()">>,
                     <<"try:\n  import EXT\nexcept ImportError:\n  x = 'none'\nelse:\n  x = EXT.f()">>,
                     <<"def g():\n  import EXT\n  return EXT.f()\nx = g()">>,
                     <<"class C:\n  from EXT import f\nx = C().f()">>,
                     <<"# -*- coding: utf-8 -*-\n'''a ß'''\nfrom __future__ import annotations\n"
                       "import EXT\nx = EXT.f()"/utf8>>]].

first_eval(Config) ->
    Name = extension(single_phase, Config),
    %% There is no import statement to see; once it is known the code itself says what helps.
    Code = [<<"__import__('">>, Name, <<"').f()">>],
    [case is_refused(single_phase, Config) of
         true -> refused(Name, Result);
         false -> ?assertEqual({ok, 42}, Result)
     end || Result <- py_modes:at_once(lists:duplicate(3, fun() -> py:eval(Code) end))],
    ?assertEqual({ok, 42}, py:call(Name, f, [])).

%% A namespace that lives in a sub-interpreter already stays there; its calls are placed.
later_exec(Config) ->
    [begin
         Name = extension(Kind, Config),
         ok = py:exec(<<"x = 1">>),
         Ctx = py:context(),
         Result = py:exec(["import ", Name]),
         case is_refused(Kind, Config) of
             true -> refused(Name, Result), refused(Name, py:exec(["import ", Name]));
             false -> ?assertEqual(ok, Result)
         end,
         ?assertEqual({ok, 1}, py:eval(<<"x">>)),
         ?assertEqual({ok, 42}, py:call(Name, f, [])),
         ?assertEqual(Ctx, py:context()),
         main_is_sane(Name)
     end || Kind <- ?KINDS].

%% ------------------------------------------------------------------------------------------
%% With a context
%% ------------------------------------------------------------------------------------------

explicit_context(Config) ->
    Ctx = py:context(1),
    [begin
         Name = extension(Kind, Config),
         Results = [py:call(Ctx, Name, f, []), py:call(Ctx, Name, f, []),
                    py_context:call(Ctx, Name, f, []),
                    py:eval(Ctx, [<<"__import__('">>, Name, <<"').f()">>])],
         case is_refused(Kind, Config) of
             true ->
                 [refused(Name, Result) || Result <- Results],
                 refused(Name, py:exec(Ctx, ["import ", Name]));
             false ->
                 ?assertEqual(lists:duplicate(4, {ok, 42}), Results),
                 ?assertEqual(ok, py:exec(Ctx, ["import ", Name]))
         end,
         ?assertEqual({ok, 4.0}, py:call(Ctx, math, sqrt, [16])),
         ?assertEqual({ok, 42}, py:call(Name, f, [])),
         main_is_sane(Name)
     end || Kind <- ?KINDS].

%% Many contexts at once are the first to meet it.
context_first(Config) ->
    Contexts = [context(Config) || _ <- lists:seq(1, 4)],
    [begin
         Name = extension(Kind, Config),
         Results = py_modes:at_once([fun() -> py:call(Ctx, Name, f, []) end || Ctx <- Contexts]),
         case is_refused(Kind, Config) of
             true -> [refused(Name, Result) || Result <- Results];
             false -> ?assertEqual([{ok, 42} || _ <- Contexts], Results)
         end,
         main_is_sane(Name)
     end || Kind <- ?KINDS],
    [ok = py_context:stop(Ctx) || Ctx <- Contexts].

bound_process(Config) ->
    [begin
         Name = extension(Kind, Config),
         ok = py_context_router:bind_context(N),
         ?assertEqual({ok, 42}, py:call(Name, f, [])),
         ?assertEqual(py:context(N), py:context()),
         ok = py_context_router:unbind_context()
     end || Kind <- ?KINDS, N <- [1, 2]].

%% Called from Erlang that Python called.
callback(Config) ->
    [begin
         Name = extension(Kind, Config),
         ok = py:register_function(of_extension, fun([]) ->
             {ok, Value} = py:call(Name, f, []),
             Value
         end),
         ok = py:exec(<<"import erlang\ndef g(): return erlang.call('of_extension') + 1">>),
         ?assertEqual({ok, 43}, py:call('__main__', g, []))
     end || Kind <- ?KINDS],
    ok = py:unregister_function(of_extension).

spawn_call(Config) ->
    [begin
         Name = extension(Kind, Config),
         Refs = [py:spawn_call(Name, f, []) || _ <- lists:seq(1, 4)],
         ?assertEqual(lists:duplicate(4, {ok, 42}), [py:await(Ref) || Ref <- Refs], Kind),
         Ref = py:spawn_call(Name, f, []),
         receive {py_response, Ref, Result} -> ?assertEqual({ok, 42}, Result)
         after 5000 -> error(nothing)
         end,
         main_is_sane(Name)
     end || Kind <- ?KINDS].

%% It runs; nobody sees a result, so it leaves a mark.
cast(Config) ->
    [begin
         Name = package_of(Kind, Config, <<"from ._ext import f\n"
                                           "def mark(path):\n"
                                           "  with open(path, 'w') as file: file.write(str(f()))\n">>),
         Files = [filename:join(proplists:get_value(dir, Config), <<Name/binary, I>>) || I <- "123"],
         [ok = py:cast(Name, mark, [unicode:characters_to_binary(File)]) || File <- Files],
         [py_modes:wait_until(fun() -> file:read_file(File) =:= {ok, <<"42">>} end) || File <- Files],
         main_is_sane(Name)
     end || Kind <- ?KINDS].

parallel(Config) ->
    [begin
         Name = extension(Kind, Config),
         ?assertEqual({ok, [{ok, 42}, {ok, 4.0}, {ok, 42}, {ok, 42}, {ok, 42}]},
                      py:parallel([{Name, f, []}, {math, sqrt, [16]}, {Name, f, []}, {Name, f, []},
                                   {Name, f, [], #{}}]), Kind),
         main_is_sane(Name)
     end || Kind <- ?KINDS].

%% A pool that is named is an explicit choice; one that a module is registered for is not.
pools(Config) ->
    {ok, _} = py_context_router:start_pool(some, 1, py_modes:mode(Config)),
    [begin
         Name = extension(Kind, Config),
         case is_refused(Kind, Config) of
             true -> refused(Name, py:call(some, Name, f, []));
             false -> ?assertEqual({ok, 42}, py:call(some, Name, f, []))
         end,
         ok = py:register_pool(some, Name),
         ?assertEqual({ok, 42}, py:call(Name, f, [])),
         ok = py:unregister_pool(Name)
     end || Kind <- ?KINDS],
    ok = py_context_router:stop_pool(some).

%% What a call that was placed returns lives in main; methods and arguments follow it.
handles(Config) ->
    Name = extension(single_phase, Config),
    {ok, Handle} = py:call(Name, f, [], #{}, #{return => handle}),
    ?assertEqual({ok, 42}, py:to_term(Handle)),
    ?assertEqual({ok, 6}, py:call(Handle, bit_length, [])),
    ?assertEqual({ok, 42.0}, py:call(builtins, float, [Handle])).

%% ------------------------------------------------------------------------------------------
%% Packages
%% ------------------------------------------------------------------------------------------

package(Config) ->
    [begin
         Name = package_of(Kind, Config, <<"from ._ext import f\n">>),
         ?assertEqual([{ok, 42}, {ok, 42}],
                      py_modes:at_once(lists:duplicate(2, fun() -> py:call(Name, f, []) end))),
         ?assertEqual([{ok, 42}], py_modes:at_once([fun() ->
             ok = py:exec(["import ", Name, " as p\nx = p.f()"]),
             py:eval(<<"x">>)
         end])),
         main_is_sane(Name)
     end || Kind <- ?KINDS].

dotted(Config) ->
    [begin
         First = package_of(Kind, Config, <<>>),
         ?assertEqual([{ok, 42}], py_modes:at_once([fun() ->
             ok = py:exec(["import ", First, "._ext\nx = ", First, "._ext.f()"]),
             py:eval(<<"x">>)
         end])),
         Name = package_of(Kind, Config, <<>>),
         ?assertEqual({ok, 42}, py:call(<<Name/binary, "._ext">>, f, [])),
         ?assertEqual([{ok, 42}], py_modes:at_once([fun() ->
             ok = py:exec(["from ", Name, "._ext import f\nx = f()"]),
             py:eval(<<"x">>)
         end])),
         ?assertEqual({ok, 42}, py:call(Name, "_ext.f", []))
     end || Kind <- ?KINDS].

%% A package in plain Python that cannot do without the extension goes where it works.
dependent_package(Config) ->
    [begin
         Name = extension(Kind, Config),
         Plain = write(Config, "plain", Code(Name)),
         ?assertEqual({ok, 42}, py:call(Plain, g, []), Kind),
         ?assertEqual([{ok, 42}], py_modes:at_once([fun() ->
             ok = py:exec(["import ", Plain, "\nx = ", Plain, ".g()"]),
             py:eval(<<"x">>)
         end])),
         main_is_sane(Name)
     end || Kind <- ?KINDS,
            Code <- [fun(Name) -> ["import ", Name, "\ndef g(): return ", Name, ".f()\n"] end,
                     %% As pandas does: what went wrong is told in its own words.
                     fun(Name) ->
                         ["missing = []\ntry:\n  import ", Name, "\nexcept ImportError as error:\n"
                          "  missing.append(str(error))\n"
                          "if missing: raise ImportError('needs ' + ', '.join(missing))\n"
                          "def g(): return ", Name, ".f()\n"]
                     end]].

%% A package may tell what went wrong in its own words, as numpy does: what helps is said all the same.
hidden_refusal(Config) ->
    [begin
         Name = package_of(Kind, Config,
                           <<"try:\n  from ._ext import f\nexcept ImportError as error:\n"
                             "  raise ImportError('do not import this from its source directory') from error\n">>),
         Ctx = context(Config),
         [case is_refused(Kind, Config) of
              true -> refused(Name, Result);
              false -> ?assertEqual(ok, Result)
          end || Result <- [py:exec(Ctx, ["import ", Name]), py:exec(Ctx, ["import ", Name])]],
         ok = py_context:stop(Ctx),
         main_is_sane(Name)
     end || Kind <- ?KINDS].

%% The package loads anywhere; a function of it then wants what does not. Nothing is run twice, the
%% error says what helps, and calls of what was refused are placed from then on.
later_refusal(Config) ->
    [begin
         Name = package_of(Kind, Config, <<"def g():\n  from . import _ext\n  return _ext.f()\n">>),
         case {is_refused(Kind, Config), py:call(Name, g, [])} of
             {true, Result} -> refused(Name, Result);
             {false, Result} -> ?assertEqual({ok, 42}, Result)
         end,
         ?assertEqual(lists:duplicate(4, {ok, 42}),
                      py_modes:at_once(lists:duplicate(4, fun() -> py:call(Name, g, []) end)), Kind)
     end || Kind <- ?KINDS].

%% A package that can do without is loaded without.
optional_dependency(Config) ->
    Name = extension(single_phase, Config),
    Plain = write(Config, "optional", ["try:\n  import ", Name, " as e\nexcept ImportError:\n  e = None\n"
                                       "def g(): return e is not None\n"]),
    ?assertEqual({ok, not is_refused(single_phase, Config)}, py:call(py:context(1), Plain, g, [])),
    ?assertEqual({ok, 42}, py:call(Name, f, [])).

%% One that fails everywhere: its own error, whoever asks.
broken(Config) ->
    Name = package_of(single_phase, Config, <<"import no_such_module_at_all\n">>),
    [?assertMatch({error, {'ModuleNotFoundError', "No module named 'no_such_module_at_all'"}},
                  py:call(Name, f, [])) || _ <- [1, 2]],
    Empty = <<"empty_", Name/binary>>,
    ok = file:write_file(filename:join(proplists:get_value(dir, Config), <<Empty/binary, ".so">>), <<>>),
    [begin
         {error, {'ImportError', Message}} = Call(),
         ?assertNotEqual(nomatch, string:find(Message, "too short"), Message),
         ?assertEqual(nomatch, string:find(Message, "sub-interpreter"), Message)
     end || Call <- [fun() -> py:call(Empty, f, []) end,
                     fun() -> py:call(py:context(1), Empty, f, []) end]],
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])).

%% ------------------------------------------------------------------------------------------
%% Settings
%% ------------------------------------------------------------------------------------------

%% What a context cannot import at its start is logged with the sentence; it serves all the same.
imports_setting(Config) ->
    Name = extension(single_phase, Config),
    py_modes:hear_log(self()),
    {ok, Ctx} = py_context:new(#{mode => py_modes:mode(Config), imports => [Name]}),
    case is_refused(single_phase, Config) of
        true ->
            Text = heard(),
            ?assertNotEqual(nomatch, string:find(Text, sentence(Name)), Text);
        false ->
            ok
    end,
    py_modes:unhear_log(),
    ?assertEqual({ok, 4.0}, py:call(Ctx, math, sqrt, [16])),
    ok = py_context:stop(Ctx).

%% Only one context knows where it is; the main interpreter has it first even so.
path_of_one_context(Config) ->
    [begin
         Dir = filename:join(proplists:get_value(dir, Config), atom_to_list(Kind)),
         ok = filelib:ensure_dir(filename:join(Dir, "any")),
         {ok, Ctx} = py_context:new(#{mode => py_modes:mode(Config), paths => [Dir]}),
         Name = extension(Kind, [{dir, Dir} | Config]),
         case is_refused(Kind, Config) of
             true -> refused(Name, py:call(Ctx, Name, f, []));
             false -> ?assertEqual({ok, 42}, py:call(Ctx, Name, f, []))
         end,
         ?assertEqual({ok, 4.0}, py:call(Ctx, math, sqrt, [16])),
         ?assertEqual({ok, 42}, in_main_with_path(Name, Dir)),
         ok = py_context:stop(Ctx)
     end || Kind <- ?KINDS].

in_main_with_path(Name, Dir) ->
    {ok, Main} = py_context:new(#{mode => worker, paths => [Dir]}),
    Result = py:call(Main, Name, f, []),
    ok = py_context:stop(Main),
    Result.

%% Imported by a thread that Python code started.
threads(Config) ->
    [begin
         Name = extension(Kind, Config),
         Ctx = py:context(1),
         ok = py:exec(Ctx, ["from concurrent.futures import ThreadPoolExecutor\n"
                            "def load():\n  import ", Name, " as e\n  return e.f()\n"
                            "def g():\n"
                            "  with ThreadPoolExecutor(2) as pool:\n"
                            "    return [each.result() for each in [pool.submit(load), pool.submit(load)]]\n"]),
         case is_refused(Kind, Config) of
             true -> refused(Name, py:call(Ctx, '__main__', g, []));
             false -> ?assertEqual({ok, [42, 42]}, py:call(Ctx, '__main__', g, []))
         end,
         main_is_sane(Name)
     end || Kind <- ?KINDS].

%% Some versions have modules of their own that only main can load.
standard_modules(Config) ->
    {ok, Python} = py:eval(<<"__import__('sys').executable">>),
    [begin
         ?assertEqual(lists:duplicate(2, {ok, Module}), py_modes:at_once(lists:duplicate(2, fun() ->
             ok = py:exec(["import ", Module]),
             py:eval([Module, ".__name__"])
         end))),
         ?assertEqual([{ok, Module}], py_modes:at_once([fun() ->
             py:call(Module, '__name__.strip', [])
         end])),
         case py:exec(py:context(1), ["import ", Module]) of
             ok ->
                 ok;
             {error, {'ImportError', Message}} ->
                 ?assertNot(is_main(Config)),
                 ?assertNotEqual(nomatch, string:find(Message, "cannot be loaded in a sub-interpreter"), Message)
         end
     end || Module <- [<<"ctypes">>, <<"zoneinfo">>, <<"curses">>, <<"readline">>, <<"decimal">>],
            element(1, run(Python, ["-c", ["import ", Module]])) =:= 0].

%% None of this made a free-threaded Python switch its GIL on, which would hide the rest.
gil_stays_off(_) ->
    Expected = not py:free_threaded(),
    ?assertEqual({ok, Expected},
                 py:eval(<<"getattr(__import__('sys'), '_is_gil_enabled', lambda: True)()">>)).

%% Of modules that are loaded at the same time it is the one that cannot do without that is named, in
%% the log and by the contexts that share its interpreter's GIL. In a VM of its own: there it stays on.
gil_comes_back(Config) ->
    case py:free_threaded() of
        true -> py_peer:in_peer(py_modes:mode(Config), ?MODULE, gil_comes_back_there, [Config]);
        false -> {comment, "this Python has its GIL always"}
    end.

gil_comes_back_there(Config) ->
    Dir = proplists:get_value(dir, Config),
    Names = [extension(Kind, Config)
             || Kind <- [multi_phase_with_gil, only_once, only_once, only_once, only_once]],
    [Culprit | Good] = Names,
    Contexts = [Ctx, Main | _] = [element(2, py_context:new(#{mode => Mode, paths => [Dir]}))
                                  || Mode <- [py_modes:mode(Config), worker, worker, worker, worker]],
    py_modes:hear_log(self()),
    {ok, 42} = py:call(Main, hd(Good), f, []),
    [?assertMatch(#{gil_enabled_by := undefined}, py_context:info(C)) || C <- Contexts],
    ?assertEqual([], py_modes:messages()),
    py_modes:at_once([fun() -> py:call(C, Name, f, []) end || {C, Name} <- lists:zip(Contexts, Names)]),
    {ok, 42} = py:call(Main, Culprit, f, []),
    ?assertMatch(#{gil_enabled_by := Culprit}, py_context:info(Main)),
    ?assertEqual({ok, true}, py:eval(Main, <<"__import__('sys')._is_gil_enabled()">>)),
    ?assertNotEqual(nomatch, string:find(heard(), ["The import of ", Culprit, " switched"])),
    Expected = case py_modes:mode(Config) of
                   owngil -> undefined; % it refused the module, its own GIL stays off
                   _ -> Culprit
               end,
    ?assertMatch(#{gil_enabled_by := Expected}, py_context:info(Ctx)),
    {ok, 42} = py:call(Main, extension(multi_phase_with_gil, Config), f, []),
    ?assertMatch(#{gil_enabled_by := Culprit}, py_context:info(Main)),
    py_modes:unhear_log(),
    ?assertEqual([], py_modes:messages()),
    [ok = py_context:stop(C) || C <- Contexts],
    ok.

%% ------------------------------------------------------------------------------------------
%% A real one
%% ------------------------------------------------------------------------------------------

numpy(Config) ->
    {ok, Python} = py:eval(<<"__import__('sys').executable">>),
    case run(Python, ["-c", "import numpy"]) of
        {0, _} -> numpy_works(Config);
        {_, _} -> {skip, "this Python has no numpy"}
    end.

numpy_works(Config) ->
    Refused = lists:member(py_modes:mode(Config), [subinterp, owngil]),
    Sub = context(Config),
    case Refused of
        true -> refused(<<"numpy">>, py:exec(Sub, <<"import numpy">>));
        false -> ?assertEqual(ok, py:exec(Sub, <<"import numpy">>))
    end,
    ok = py_context:stop(Sub),
    Sums = fun() ->
               [begin
                    {ok, Array} = py:call(numpy, arange, [4], #{}, #{return => handle}),
                    py:call(Array, sum, [])
                end || _ <- lists:seq(1, 10)]
           end,
    ?assertEqual(lists:duplicate(10, lists:duplicate(10, {ok, 6})),
                 py_modes:at_once(lists:duplicate(10, Sums))),
    ?assertEqual(lists:duplicate(3, {ok, 6}), py_modes:at_once(lists:duplicate(3, fun() ->
        ok = py:exec(<<"import numpy as np\nx = np.arange(4)">>),
        py:eval(<<"int(x.sum())">>)
    end))).

%% ------------------------------------------------------------------------------------------
%% What sub-interpreters refuse
%% ------------------------------------------------------------------------------------------

is_main(Config) ->
    py_modes:is_main(py_modes:mode(Config)).

is_refused(multi_phase, Config) -> py_modes:mode(Config) =:= owngil;
is_refused(_Kind, Config) -> not is_main(Config).

refused(Name, {error, {'ImportError', Message}}) ->
    ?assertNotEqual(nomatch, string:find(Message, sentence(Name)), Message).

sentence(Name) ->
    lists:flatten(io_lib:format("~ts cannot be loaded in a sub-interpreter; call its functions "
                                "without a context (py:call(~ts, ...))", [Name, Name])).

in_main(Ctx) ->
    {ok, 0} =:= py_context:get_interp_id(Ctx).

%% Whatever happened elsewhere, main has it, and it works.
main_is_sane(Name) ->
    {ok, Main} = py_context:new(#{mode => worker}),
    ?assertEqual({ok, 42}, py:call(Main, Name, f, [])),
    ok = py_context:stop(Main).

context(Config) ->
    {ok, Ctx} = py_context:new(#{mode => py_modes:mode(Config)}),
    Ctx.

heard() ->
    receive {log, _, Text} -> Text after 5000 -> error(nothing_logged) end.

%% ------------------------------------------------------------------------------------------
%% Building
%% ------------------------------------------------------------------------------------------

%% A module of this kind that nobody has seen: its name.
extension(Kind, Config) ->
    Name = fresh(Kind),
    compile(Kind, Name, [proplists:get_value(dir, Config), "/", Name, ".so"]),
    Name.

%% A package with the extension in it as _ext.
package_of(Kind, Config, Init) ->
    Name = fresh(["package_", atom_to_list(Kind)]),
    Dir = filename:join(proplists:get_value(dir, Config), Name),
    ok = file:make_dir(Dir),
    ok = file:write_file(filename:join(Dir, "__init__.py"), Init),
    compile(Kind, <<"_ext">>, [Dir, "/_ext.so"]),
    Name.

%% A module in plain Python.
write(Config, What, Code) ->
    Name = fresh(What),
    ok = file:write_file(filename:join(proplists:get_value(dir, Config), <<Name/binary, ".py">>), Code),
    Name.

fresh(What) when is_atom(What) ->
    fresh(atom_to_list(What));
fresh(What) ->
    iolist_to_binary(io_lib:format("~ts_~b", [What, erlang:unique_integer([positive])])).

compile(Kind, Name, Output) ->
    {ok, Include} = py:call(sysconfig, get_path, [include]),
    Data = filename:join(filename:dirname(code:which(?MODULE)), "data"),
    {File, Flags} = case Kind of
                        multi_phase_with_gil -> {"multi_phase.c", ["-DNEEDS_GIL"]};
                        _ -> {atom_to_list(Kind) ++ ".c", []}
                    end,
    ?assertMatch({0, _}, run("cc", ["-shared", "-fPIC", "-I", Include, ["-DNAME=", Name],
                                    filename:join(Data, File), "-o", Output | Flags])).

%% {Status, Output} of a program.
run(Program, Args) ->
    Port = open_port({spawn_executable, os:find_executable(unicode:characters_to_list(Program))},
                     [{args, [iolist_to_binary(Arg) || Arg <- Args]}, exit_status,
                      stderr_to_stdout, binary]),
    collect(Port, <<>>).

collect(Port, Output) ->
    receive
        {Port, {data, More}} -> collect(Port, <<Output/binary, More/binary>>);
        {Port, {exit_status, Status}} -> {Status, Output}
    end.

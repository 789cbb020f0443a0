-module(docs_SUITE).

%% @doc Every snippet of README.md and docs/*.md is run, or checked as far as it can be.
%%
%% One case per page: a fresh process of a freshly started application goes through the page from top
%% to bottom, so what one snippet defines the next one sees. What the page says a value is, it must
%% be. doc_snippets.erl says how a snippet is marked that not every Python can run; the case's
%% comment counts what was left out, and why.

-export([all/0, suite/0, init_per_testcase/2, end_per_testcase/2]).
-export([links_lead_somewhere/1, settings_are_documented/1, functions_are_documented/1]).
%% A page's case is no function of its own.
-export(['$handle_undefined_function'/2]).

-define(WELL_KNOWN, ["apt-get", "brew", "cd", "cmake", "erl", "git", "ln", "make", "mkdir", "pip",
                     "python3", "rebar3", "rm"]).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [case_of(Page) || Page <- pages()] ++
        [links_lead_somewhere, settings_are_documented, functions_are_documented].

'$handle_undefined_function'(Case, Args) ->
    case {[Page || Page <- pages(), case_of(Page) =:= Case], Args} of
        {[_], []} -> [];
        {[Page], [_Config]} -> run_page(Page);
        _ -> error_handler:raise_undef_exception(?MODULE, Case, Args)
    end.

init_per_testcase(_Case, Config) ->
    {ok, _} = application:ensure_all_started(erlang_python),
    Config.

end_per_testcase(_Case, _Config) ->
    ok = application:stop(erlang_python).

%% ------------------------------------------------------------------------------------------
%% Pages
%% ------------------------------------------------------------------------------------------

pages() ->
    ["README.md" | lists:sort(filelib:wildcard("docs/*.md", top()))].

%% docs/getting-started.md is getting_started.
case_of(Page) ->
    Name = string:lowercase(filename:rootname(filename:basename(Page))),
    list_to_atom("page_" ++ lists:flatten(string:replace(Name, "-", "_", all))).

%% The project's folder, from wherever rebar3 put this module.
top() ->
    top(filename:absname(filename:dirname(code:which(?MODULE)))).

top(Folder) ->
    case filelib:is_regular(filename:join([Folder, "c_src", "nif.c"])) of
        true -> Folder;
        false when Folder =/= "/" -> top(filename:dirname(Folder))
    end.

read(Page) ->
    {ok, Text} = file:read_file(filename:join(top(), Page)),
    Text.

run_page(Page) ->
    {LeftOut, Run} = lists:partition(fun(S) -> reason(S) =/= none end, doc_snippets:parse(read(Page))),
    {Pid, Monitor} = spawn_monitor(fun() -> run_snippets(Page, Run) end),
    receive
        {'DOWN', Monitor, process, Pid, normal} -> {comment, summary(Run, LeftOut)};
        {'DOWN', Monitor, process, Pid, Reason} -> ct:fail(Reason)
    end.

summary(Run, LeftOut) ->
    Count = fun(Snippet, Counts) -> maps:update_with(reason(Snippet), fun(N) -> N + 1 end, 1, Counts) end,
    Reasons = [io_lib:format("~b ~ts", [N, Reason])
               || {Reason, N} <- maps:to_list(lists:foldl(Count, #{}, LeftOut))],
    Left = case Reasons of
               [] -> "";
               _ -> [", left out: ", lists:join(", ", Reasons)]
           end,
    lists:flatten(io_lib:format("~b run~ts", [length(Run), Left])).

%% Why a snippet is left out with this Python.
reason(#{not_run := Why}) when Why =/= none ->
    "not run: " ++ Why;
reason(#{requires := Requires}) ->
    case [R || R <- Requires, not has(R)] of
        [] -> none;
        [Lacking | _] -> "requires=" ++ Lacking
    end.

has("free_threaded") -> py:free_threaded();
has("gil") -> not py:free_threaded();
has(Version) ->
    {ok, Here} = py:version(),
    number(binary_to_list(Here)) >= number(Version).

number(Version) ->
    [Major, Minor | _] = string:lexemes(Version, "."),
    {list_to_integer(Major), list_to_integer(Minor)}.

%% ------------------------------------------------------------------------------------------
%% Snippets
%% ------------------------------------------------------------------------------------------

run_snippets(Page, Snippets) ->
    lists:foldl(
        fun(#{line := Line} = Snippet, Bindings) ->
            try run(Snippet, Bindings)
            catch
                Class:Reason:Stack ->
                    ct:pal("~ts, snippet at line ~b:~n~ts",
                           [Page, Line, erl_error:format_exception(Class, Reason, Stack)]),
                    exit({Page, Line, Reason})
            end
        end,
        erl_eval:new_bindings(), Snippets).

run(#{language := "erlang", file := "sys.config", text := Text}, Bindings) ->
    [Applications] = consult(Text),
    check_config(proplists:get_value(erlang_python, Applications)),
    Bindings;
run(#{language := "erlang", file := "rebar.config", text := Text}, Bindings) ->
    _ = consult(Text),
    Bindings;
run(#{language := "erlang", text := "-module(" ++ _ = Text}, Bindings) ->
    load_module(Text),
    Bindings;
run(#{language := "erlang", line := Line, text := Text}, Bindings) ->
    lists:foldl(fun(Expression, B) -> evaluate(Expression, Line, B) end, Bindings,
                doc_snippets:expressions(Text));
run(#{language := "python", text := Text}, Bindings) ->
    Code = unicode:characters_to_binary(doc_snippets:python(Text)),
    case py:exec(Code, #{traceback => true}) of
        ok -> Bindings;
        Error -> error({python, unicode:characters_to_list(py:format_error(Error))})
    end;
run(#{language := Shell, text := Text}, Bindings) when Shell =:= "bash"; Shell =:= "sh" ->
    [] = [Command || Command <- doc_snippets:commands(Text), not is_command(Command)],
    Bindings;
run(#{language := "text"}, Bindings) ->
    Bindings;
run(#{language := Other}, _Bindings) ->
    error({unknown_language, Other}).

evaluate(#{line := At, tokens := Tokens, expected := Expected}, Line, Bindings) ->
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    {value, Value, After} =
        try erl_eval:exprs(Expressions, Bindings)
        catch error:Reason:Stack -> erlang:raise(error, {at_line, Line + At - 1, Reason}, Stack)
        end,
    matches(Value, Expected, After) orelse
        error({at_line, Line + At - 1, {value, Value}, {but_the_page_says, Expected}}),
    After.

matches(_Value, none, _Bindings) ->
    true;
matches(Value, Expected, Bindings) ->
    try erl_eval:exprs(parsed(Expected), Bindings) of
        {value, Said, _} -> Said =:= Value
    catch
        error:_ -> matches_pattern(Value, Expected, Bindings) % it has a _ or a new variable
    end.

matches_pattern(Value, Expected, Bindings) ->
    Pattern = string:replace(Expected, "=>", ":=", all),
    Case = parsed(["case Value of ", Pattern, " -> true; _ -> false end"]),
    {value, Result, _} = erl_eval:exprs(Case, erl_eval:add_binding('Value', Value, Bindings)),
    Result.

parsed(Text) ->
    {ok, Tokens, _} = erl_scan:string(lists:flatten([Text, "."])),
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    Expressions.

load_module(Text) ->
    {ok, Tokens, _} = erl_scan:string(Text),
    Forms = [begin {ok, Form} = erl_parse:parse_form(Form0), Form end || Form0 <- forms(Tokens, [])],
    {ok, Module, Binary} = compile:forms(Forms, [return_errors]),
    {module, Module} = code:load_binary(Module, "docs", Binary).

forms([], []) -> [];
forms([{dot, _} = Dot | Rest], Open) -> [lists:reverse(Open, [Dot]) | forms(Rest, [])];
forms([Token | Rest], Open) -> forms(Rest, [Token | Open]).

consult(Text) ->
    File = filename:join(top(), "_build/doc_snippet.config"),
    ok = file:write_file(File, unicode:characters_to_binary(Text)),
    {ok, Terms} = file:consult(File),
    ok = file:delete(File),
    Terms.

%% Every key is one the application knows, every value one it takes.
check_config(Settings) ->
    Before = application:get_all_env(erlang_python),
    try
        [ok = application:set_env(erlang_python, Key, Value) || {Key, Value} <- Settings],
        ok = py_config:load(),
        [Value = py_config:get(Key) || {Key, Value} <- Settings]
    after
        [application:unset_env(erlang_python, Key) || {Key, _} <- Settings],
        [application:set_env(erlang_python, Key, Value) || {Key, Value} <- Before],
        ok = py_config:load()
    end.

is_command(Command) ->
    lists:member(Command, ?WELL_KNOWN) orelse filelib:is_regular(filename:join(top(), Command)).

%% ------------------------------------------------------------------------------------------
%% The pages as a whole
%% ------------------------------------------------------------------------------------------

links_lead_somewhere(_Config) ->
    Pages = pages() ++ ["ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "bench/README.md"],
    [] = [{Page, Link} || Page <- Pages, Link <- doc_snippets:links(read(Page)),
                          not leads_somewhere(Page, Link)].

leads_somewhere(_Page, "http" ++ _) ->
    true;
leads_somewhere(Page, Link) ->
    {File, Anchor} = case string:split(Link, "#") of
                         ["", A] -> {Page, A};
                         [F, A] -> {filename:join(filename:dirname(Page), F), A};
                         [F] -> {filename:join(filename:dirname(Page), F), none}
                     end,
    filelib:is_file(filename:join(top(), File)) andalso
        (Anchor =:= none orelse lists:member(Anchor, doc_snippets:anchors(read(File)))).

settings_are_documented(_Config) ->
    Text = read("docs/configuration.md"),
    Keys = maps:keys(persistent_term:get({py_config, settings})),
    [] = [Key || Key <- Keys, binary:match(Text, <<"`", (atom_to_binary(Key))/binary, "`">>) =:= nomatch].

%% Every function of the modules that users call stands on some page, as `module:function' or
%% `function/N'. py_context_router exports internal ones as well.
functions_are_documented(_Config) ->
    Text = iolist_to_binary([read(Page) || Page <- pages()]),
    Internal = [module_info, to_binary, from_python],
    [] = [{Module, Function} || Module <- [py, py_semaphore, py_state],
                                {Function, _} <- lists:usort(Module:module_info(exports)),
                                not lists:member(Function, Internal),
                                not is_named(Module, atom_to_binary(Function), Text)].

is_named(Module, Function, Text) ->
    Full = <<(atom_to_binary(Module))/binary, ":", Function/binary>>,
    re:run(Text, ["\\b", Full, "\\b|`", Function, "/[0-9]"]) =/= nomatch.

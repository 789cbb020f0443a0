-module(doc_snippets).

%% @doc Reads the code out of a Markdown page. Pure.
%%
%% A snippet is what stands in a fence of three backticks with a language. An HTML comment on the
%% line before the fence, invisible when the page is rendered, says more about it:
%%
%%     <!-- requires=3.12 -->            needs this Python or a newer one
%%     <!-- requires=free_threaded -->   needs a Python without the GIL
%%     <!-- requires=gil -->             needs a Python with the GIL
%%     <!-- not-run: SENTENCE -->        cannot be run by a test, and why
%%     <!-- sys.config -->               is that file, or
%%     <!-- rebar.config -->             this one
%%
%% Requirements are joined by commas.

-export([parse/1, expressions/1, python/1, commands/1, links/1, anchors/1]).

-export_type([snippet/0, expression/0]).

-type snippet() :: #{language := string(), line := pos_integer(), text := string(),
                     requires := [string()], not_run := none | string(),
                     file := none | string()}.
-type expression() :: #{line := pos_integer(), tokens := [erl_scan:token()],
                        expected := none | string()}.

%% @doc All snippets of a page in order; `line' is that of the first line inside the fence.
-spec parse(unicode:chardata()) -> [snippet()].
parse(Markdown) ->
    parse(lines(Markdown), 1, "", []).

parse([], _Line, _Before, Done) ->
    lists:reverse(Done);
parse(["```" ++ Language | Rest], Line, Before, Done) ->
    {Inside, After} = to_fence(Rest, Line, []),
    Snippet = (notes(Before))#{language => string:trim(Language), line => Line + 1,
                               text => lists:flatten(lists:join("\n", Inside))},
    parse(After, Line + length(Inside) + 2, "", [Snippet | Done]);
parse([Text | Rest], Line, _Before, Done) ->
    parse(Rest, Line + 1, Text, Done).

to_fence(["```" | Rest], _Line, Inside) -> {lists:reverse(Inside), Rest};
to_fence([Text | Rest], Line, Inside) -> to_fence(Rest, Line, [Text | Inside]);
to_fence([], Line, _Inside) -> error({fence_without_end, Line}).

notes(Before) ->
    None = #{requires => [], not_run => none, file => none},
    case re:run(Before, "^<!-- *(.*?) *-->$", [{capture, all_but_first, list}]) of
        nomatch -> None;
        {match, ["requires=" ++ What]} -> None#{requires := string:lexemes(What, ", ")};
        {match, ["not-run: " ++ Why]} -> None#{not_run := Why};
        {match, [File]} when File =:= "sys.config"; File =:= "rebar.config" -> None#{file := File};
        {match, [Other]} -> error({unknown_note, Other})
    end.

%% @doc The expressions of an Erlang snippet, each ended by a dot. `%% => Pattern' behind one or on
%% the lines below it is what its value matches; so is what stands below a shell prompt (`1> ').
-spec expressions(string()) -> [expression()].
expressions(Text) ->
    {ok, Tokens, _} = erl_scan:string(without_prompts(Text), 1, [return_comments]),
    expressions(Tokens, [], []).

expressions([], [], Done) ->
    lists:reverse(Done);
expressions([], Open, _Done) ->
    error({no_dot_after, erl_scan:text(lists:last(Open)), erl_scan:location(lists:last(Open))});
expressions([{comment, Line, Comment} | Rest], Open, Done) ->
    case {Comment, Open, Done} of
        {"%% => " ++ First, [], [#{expected := none} = Expression | Earlier]} ->
            {More, Rest1} = continued(Rest, []),
            Expected = lists:flatten(lists:join(" ", [First | More])),
            expressions(Rest1, [], [Expression#{expected := Expected} | Earlier]);
        {"%% => " ++ _, _, _} ->
            error({expectation_without_expression, Line});
        _ ->
            expressions(Rest, Open, Done)
    end;
expressions([{dot, _} = Dot | Rest], Open, Done) ->
    Tokens = lists:reverse(Open, [Dot]),
    Line = erl_scan:line(hd(Tokens)),
    expressions(Rest, [], [#{line => Line, tokens => Tokens, expected => none} | Done]);
expressions([Token | Rest], Open, Done) ->
    expressions(Rest, [Token | Open], Done).

continued([{comment, _, "%%    " ++ More} | Rest], Done) -> continued(Rest, [More | Done]);
continued(Rest, Done) -> {lists:reverse(Done), Rest}.

%% Shell sessions: what is typed stays, what the shell prints becomes expectations.
without_prompts(Text) ->
    Lines = lines(Text),
    case lists:any(fun is_prompt/1, Lines) of
        true -> lists:flatten(lists:join("\n", session(Lines)));
        false -> Text
    end.

is_prompt(Line) ->
    re:run(Line, "^[0-9]+> ") =/= nomatch.

session([]) ->
    [];
session([Line | Rest]) ->
    true = is_prompt(Line),
    typed([re:replace(Line, "^[0-9]+> ", "", [{return, list}, unicode]) | Rest]).

typed([Line | Rest]) ->
    case lists:suffix(".", string:trim(Line)) of
        true ->
            {Printed, Next} = lists:splitwith(fun(L) -> not is_prompt(L) end, Rest),
            [Line | printed([P || P <- Printed, P =/= ""])] ++ session(Next);
        false ->
            [Line | typed(Rest)]
    end.

printed([]) -> [];
printed([First | More]) -> ["%% => " ++ First | ["%%    " ++ Line || Line <- More]].

%% @doc A Python snippet in which `EXPRESSION  # => VALUE' became an assertion.
-spec python(string()) -> string().
python(Text) ->
    lists:flatten(lists:join("\n", [asserted(Line) || Line <- lines(Text)])).

asserted(Line) ->
    case re:run(Line, "^( *)(.*?) +# => (.*)$", [{capture, all_but_first, list}, unicode]) of
        {match, [Indent, Expression, Value]} ->
            lists:flatten(io_lib:format("~ts_ = ~ts; assert _ == (~ts), f'it is {_!r}'",
                                        [Indent, Expression, Value]));
        nomatch ->
            Line
    end.

%% @doc The first word of every command of a shell snippet, of those in `$(...)' too; assignments
%% before it do not count.
-spec commands(string()) -> [string()].
commands(Text) ->
    Plain = replace("\\\\\n", " ", replace("\"[^\"]*\"|'[^']*'", "text", Text)),
    Inner = case re:run(Plain, "\\$\\(([^)]*)\\)", [global, {capture, all_but_first, list}, unicode]) of
                {match, Found} -> lists:append(Found);
                nomatch -> []
            end,
    Lines = [string:trim(Line) || Line <- lines(replace("\\$\\([^)]*\\)", "text", Plain)) ++ Inner],
    [Word || Line <- Lines, Line =/= "", hd(Line) =/= $#,
             Part <- re:split(Line, " *(?:&&|\\|\\||;|\\|) *", [{return, list}, unicode]),
             [Word | _] <- [lists:dropwhile(fun is_assignment/1, string:lexemes(Part, " "))]].

replace(What, By, Text) ->
    re:replace(Text, What, By, [global, {return, list}, unicode]).

is_assignment(Word) ->
    re:run(Word, "^[A-Z_]+=") =/= nomatch.

%% @doc Targets of the page's links, without those in code.
-spec links(unicode:chardata()) -> [string()].
links(Markdown) ->
    case re:run(without_code(Markdown), "\\]\\(([^)]+)\\)",
                [global, {capture, all_but_first, list}, unicode]) of
        {match, Found} -> lists:append(Found);
        nomatch -> []
    end.

%% @doc What the page's headings are linked by.
-spec anchors(unicode:chardata()) -> [string()].
anchors(Markdown) ->
    [anchor(Text) || "#" ++ Text <- lines(without_code(Markdown))].

anchor(Heading) ->
    Kept = re:replace(string:lowercase(string:trim(Heading, both, "# ")), "[^\\w\\- ]", "",
                      [global, {return, list}, unicode, ucp]),
    lists:flatten(string:replace(Kept, " ", "-", all)).

%% Fences go; in headings backticks go by themselves.
without_code(Markdown) ->
    {Text, _} = lists:foldl(fun("```" ++ _, {Done, Inside}) -> {Done, not Inside};
                               (_, {Done, true}) -> {Done, true};
                               (Line, {Done, false}) -> {[Line | Done], false}
                            end, {[], false}, lines(Markdown)),
    lists:flatten(lists:join("\n", lists:reverse(Text))).

lines(Text) ->
    string:split(unicode:characters_to_list(Text), "\n", all).

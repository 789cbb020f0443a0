-module(compat_SUITE).

%% @doc docs/compatibility.md is made of what bin/compat found, and that still holds for the Python that
%% runs this: for every module that does not simply load, and a few that do.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

-define(SOME, ["asyncio", "csv", "hashlib", "json", "lzma", "multiprocessing", "socket", "ssl", "uuid"]).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [page | py_modes:all()].

groups() ->
    py_modes:groups([as_the_table_says]).

init_per_group(Mode, Config) ->
    py_modes:init_per_group(Mode, Config).

end_per_group(Mode, Config) ->
    py_modes:end_per_group(Mode, Config).

page(_) ->
    {ok, Page} = file:read_file(filename:join([top(), "docs", "compatibility.md"])),
    ?assertEqual(Page, compat:between_marks(Page, compat:tables(top()))).

as_the_table_says(Config) ->
    Mode = py_modes:mode(Config),
    {ok, Binary} = py:version(),
    Here = binary_to_list(Binary),
    case known(compat:spec()) of
        {Version, Results} ->
            check(Mode, Here, Version,
                  [{Module, Result} || {Module, #{Mode := Result}} <- maps:to_list(Results),
                                       Result =/= yes orelse lists:member(Module, ?SOME)]);
        none ->
            {comment, "bin/compat has not seen this Python"}
    end.

%% Another patch release may differ, and a machine may lack a module.
check(_Mode, Here, Version, _Results) when Version =/= Here ->
    {comment, "the table is about " ++ Version};
check(Mode, _Here, _Version, Results) ->
    Modules = compat:importable([Module || {Module, _} <- Results]),
    Expected = [{Module, proplists:get_value(Module, Results)} || {Module, _} <- Modules],
    ?assertEqual(Expected, compat:look(Mode, Modules)),
    {comment, lists:flatten(io_lib:format("~b modules", [length(Modules)]))}.

known(Spec) ->
    File = filename:join([top(), "test", "data", "compat", Spec ++ ".term"]),
    case filelib:is_regular(File) of
        true -> compat:consult(File);
        false -> none
    end.

%% The project's folder, from wherever rebar3 put this module.
top() ->
    top(filename:absname(filename:dirname(code:which(?MODULE)))).

top(Folder) ->
    case filelib:is_regular(filename:join([Folder, "c_src", "nif.c"])) of
        true -> Folder;
        false when Folder =/= "/" -> top(filename:dirname(Folder))
    end.

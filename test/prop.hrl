%% PropEr's macros; Debian's erlang-proper comes without proper.hrl. No parse transform: types are
%% the calls below.
%% An error in the property makes it false and is printed: PropEr 1.2 asks for its stack in a way OTP has not
%% any more.
-define(FORALL(X, Type, Property),
        proper:forall(Type, fun(X) ->
            try Property
            catch
                error:Error__:Stack__ ->
                    io:format(user, "~0p in ~0P~n", [Error__, Stack__, 30]),
                    false
            end
        end)).
-define(WHENFAIL(Action, Property), proper:whenfail(fun() -> Action end, fun() -> Property end)).
-define(LET(X, Type, Generator), proper_types:bind(Type, fun(X) -> Generator end, false)).
-define(SUCHTHAT(X, Type, Condition), proper_types:add_constraint(Type, fun(X) -> Condition end, true)).
-define(SIZED(Size, Generator), proper_types:sized(fun(Size) -> Generator end)).
-define(LAZY(Generator), proper_types:lazy(fun() -> Generator end)).

%% Documentation attributes: -doc on OTP 27 and later, nothing before (where they do not
%% compile). An empty -dialyzer is the only attribute allowed among functions that says nothing.
-if(?OTP_RELEASE >= 27).
-define(MODULEDOC(Text), -moduledoc(Text)).
-define(DOC(Text), -doc(Text)).
-define(HIDDEN, -doc(false)).
-else.
-define(MODULEDOC(Text), -dialyzer([])).
-define(DOC(Text), -dialyzer([])).
-define(HIDDEN, -dialyzer([])).
-endif.

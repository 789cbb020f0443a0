#include "atoms.h"

#define X(name) ERL_NIF_TERM atom_##name;
ATOMS(X)
#undef X

void atoms_init(ErlNifEnv *env)
{
#define X(name) atom_##name = enif_make_atom(env, #name);
    ATOMS(X)
#undef X
}

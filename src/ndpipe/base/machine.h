// What this process may use of the machine.
#pragma once

#include <string>

namespace ndpipe {

int UsableCores();      // those that the process may run on, at least 1
std::string CpuName();  // "AMD EPYC 9B14"; "unknown" where the system does not say

}  // namespace ndpipe

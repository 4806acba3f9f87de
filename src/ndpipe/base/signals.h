// SIGINT and SIGTERM as a stop request.
#pragma once

#include <stop_token>

namespace ndpipe {

// Blocks both signals in this thread and all that it starts later, and turns the first of them into
// a stop request on the returned token; a second one ends the process at once. Call once, first
// thing in main.
std::stop_token StopOnSignals();

// Blocks until stop is requested.
void WaitForStop(const std::stop_token& stop);

}  // namespace ndpipe

// Profiles in a file: JSON (docs/formats/profiles.md).
#pragma once

#include <filesystem>

#include "ndpipe/base/result.h"
#include "ndpipe/plan/profile.h"

namespace ndpipe::plan {

std::string FormatProfiles(const Profiles& profiles);
// kDataLoss: no JSON that FormatProfiles can have made, or numbers that no measurement gives.
Result<Profiles> ParseProfiles(const std::string& json);

// An absent file has no profiles. kDataLoss as ParseProfiles: measuring again mends it.
Result<Profiles> ReadProfiles(const std::filesystem::path& file);
Status WriteProfiles(const std::filesystem::path& file, const Profiles& profiles);  // durable

}  // namespace ndpipe::plan

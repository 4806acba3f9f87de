// Plans of fine-tunes, from profiles, photos and the stores that are connected.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ndpipe/plan/choice.h"
#include "ndpipe/rpc/operator.h"
#include "ndpipe/tuner/active_job.h"

namespace ndpipe::tuner {

struct FinetuneChoice {
  std::string cut;
  int num_runs = 1;
  int64_t num_stores = 0;
  std::vector<std::string> stores;  // their ids
};

struct FinetunePlanned {
  std::vector<std::string> missing;  // what was not measured, for people; then there is no choice
  std::optional<FinetuneChoice> choice;
  std::string reason;  // of the choice, or why there is none
  std::string json;    // docs/planning.md
};

// Blocks for a look at all training photos. kInvalidArgument: unknown names; kFailedPrecondition:
// no PipeStore is connected, or there are no photos to train on; kNotFound: no such backbone.
Result<FinetunePlanned> PlanFinetune(const JobContext& context, const rpc::PlanRequest& request);

// One photo that a fine-tune is about, and the stores that hold it, by index.
using Holders = std::vector<size_t>;
// The n stores that a placement is made of, by index: the fastest ones, or where these do not hold
// all photos, those that hold the most together. seconds: of one photo on each store.
std::vector<size_t> ChooseStores(const std::vector<Holders>& photos,
                                 const std::vector<double>& seconds, size_t num_stores);
// How many photos each store of `chosen` extracts, in its order: a photo goes to the holder that is
// done first so far. Nothing: some photo lies on none of them.
std::optional<std::vector<int64_t>> SharePhotos(const std::vector<Holders>& photos,
                                                const std::vector<double>& seconds,
                                                const std::vector<size_t>& chosen);

}  // namespace ndpipe::tuner

// What a job was asked to do, as it is kept in jobs.db: JSON.
#pragma once

#include <set>
#include <string>

#include "ndpipe/label/label_database.h"
#include "ndpipe/rpc/operator.h"
#include "ndpipe/train/recipe.h"

namespace ndpipe::tuner {

std::string FormatFinetuneRequest(const rpc::FinetuneRequest& request);
Result<rpc::FinetuneRequest> ParseFinetuneRequest(const std::string& json);  // kDataLoss

// A relabel, with the stores that were there when it was asked for: it waits for them.
struct RelabelOrder {
  rpc::RelabelRequest request;
  std::set<std::string> stores;
};
std::string FormatRelabelOrder(const RelabelOrder& order);
Result<RelabelOrder> ParseRelabelOrder(const std::string& json);  // kDataLoss

// What a fine-tune decided when it was planned: fixed from then on.
struct FinetunePlan {
  Hash256 backbone;
  // Those that are trained, by label name, then those that are kept: classes of the version that it
  // continues from without training photos, whose rows stay as they are, by label name.
  std::vector<label::LabelId> classes;
  int64_t trained_classes = 0;
  int64_t num_runs = 1;
  int64_t training_photos = 0;
  int64_t evaluation_photos = 0;
  std::string evaluation_part;   // "test", "held-out"
  int64_t held_out_photos = 0;   // that say when to stop, where they are not the evaluation's
  std::set<std::string> stores;  // that got blocks
};
std::string FormatFinetunePlan(const FinetunePlan& plan);
Result<FinetunePlan> ParseFinetunePlan(const std::string& json);  // kDataLoss

// The named recipe for this kind of tail with the request's changes and seed. kInvalidArgument: no
// such recipe, or a change that is out of range.
Result<train::Recipe> RecipeOf(const rpc::FinetuneRequest& request, bool deep);

// kInvalidArgument for values that no job can have.
Status CheckFinetuneRequest(const rpc::FinetuneRequest& request);
Status CheckRelabelRequest(const rpc::RelabelRequest& request);

}  // namespace ndpipe::tuner

#include "ndpipe/tuner/request.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "ndpipe/model/backbone.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::tuner {
namespace {

using nlohmann::json;

constexpr int kMaxRuns = 1000;
constexpr int kMaxStores = 100'000;
constexpr int kMaxEpochs = 100'000;

constexpr int kMaxDeltaBits = 8;

template <typename T>
json OrNull(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

// Nothing also where an older program wrote no such field.
template <typename T>
std::optional<T> OptionalField(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::nullopt;
  return found->get<T>();
}

// Runs `read` on the parsed text; a missing or mistyped field is damage, for we wrote it ourselves.
template <typename T, typename Read>
Result<T> Parse(const std::string& text, const char* what, Read&& read) {
  try {
    return read(json::parse(text));
  } catch (const json::exception& error) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("{} in jobs.db is damaged: {}", what, error.what()));
  }
}

Status CheckOnLoss(const std::string& on_loss) {
  if (on_loss == "wait" || on_loss == "continue") return {};
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("on-loss is \"{}\": give \"wait\" or \"continue\"", on_loss));
}

}  // namespace

std::string FormatFinetuneRequest(const rpc::FinetuneRequest& request) {
  return json{{"backbone", request.backbone},
              {"num_runs", request.num_runs},
              {"min_stores", request.min_stores},
              {"recipe", request.recipe},
              {"seed", request.seed},
              {"precision", request.precision},
              {"on_loss", request.on_loss},
              {"relabel", request.relabel},
              {"epochs", request.epochs},
              {"learning_rate", OrNull(request.learning_rate)},
              {"weight_decay", OrNull(request.weight_decay)},
              {"mixup", OrNull(request.mixup)},
              {"patience", OrNull(request.patience)},
              {"replay", request.replay},
              {"cut", request.cut},
              {"continue_from", request.continue_from},
              {"delta_bits", request.delta_bits},
              {"stores", request.stores},
              {"views", request.views}}
      .dump();
}

Result<rpc::FinetuneRequest> ParseFinetuneRequest(const std::string& text) {
  return Parse<rpc::FinetuneRequest>(text, "a fine-tune's request", [](const json& value) {
    rpc::FinetuneRequest request;
    value.at("backbone").get_to(request.backbone);
    value.at("num_runs").get_to(request.num_runs);
    value.at("min_stores").get_to(request.min_stores);
    value.at("recipe").get_to(request.recipe);
    value.at("seed").get_to(request.seed);
    value.at("precision").get_to(request.precision);
    value.at("on_loss").get_to(request.on_loss);
    value.at("relabel").get_to(request.relabel);
    value.at("epochs").get_to(request.epochs);
    request.learning_rate = OptionalField<double>(value, "learning_rate");
    request.weight_decay = OptionalField<double>(value, "weight_decay");
    request.mixup = OptionalField<double>(value, "mixup");
    request.patience = OptionalField<int>(value, "patience");
    request.replay = value.value("replay", true);
    request.cut = value.value("cut", std::string());
    request.continue_from = value.value("continue_from", int64_t{0});
    request.delta_bits = value.value("delta_bits", 0);
    request.stores = value.value("stores", std::vector<std::string>());
    request.views = value.value("views", 1);
    return request;
  });
}

std::string FormatRelabelOrder(const RelabelOrder& order) {
  return json{{"version", order.request.version},
              {"precision", order.request.precision},
              {"on_loss", order.request.on_loss},
              {"no_switch", order.request.no_switch},
              {"stores", order.stores}}
      .dump();
}

Result<RelabelOrder> ParseRelabelOrder(const std::string& text) {
  return Parse<RelabelOrder>(text, "a relabel's request", [](const json& value) {
    RelabelOrder order;
    value.at("version").get_to(order.request.version);
    value.at("precision").get_to(order.request.precision);
    value.at("on_loss").get_to(order.request.on_loss);
    order.request.no_switch = value.value("no_switch", false);  // records of 0.1 have none
    value.at("stores").get_to(order.stores);
    return order;
  });
}

std::string FormatFinetunePlan(const FinetunePlan& plan) {
  return json{{"backbone", plan.backbone.Hex()},
              {"classes", plan.classes},
              {"trained_classes", plan.trained_classes},
              {"num_runs", plan.num_runs},
              {"training_photos", plan.training_photos},
              {"evaluation_photos", plan.evaluation_photos},
              {"evaluation_part", plan.evaluation_part},
              {"held_out_photos", plan.held_out_photos},
              {"stores", plan.stores}}
      .dump();
}

Result<FinetunePlan> ParseFinetunePlan(const std::string& text) {
  std::string backbone;
  auto plan = Parse<FinetunePlan>(text, "a fine-tune's plan", [&](const json& value) {
    FinetunePlan read;
    value.at("backbone").get_to(backbone);
    value.at("classes").get_to(read.classes);
    // Plans of older programs trained all.
    read.trained_classes = value.value("trained_classes", int64_t{std::ssize(read.classes)});
    value.at("num_runs").get_to(read.num_runs);
    value.at("training_photos").get_to(read.training_photos);
    value.at("evaluation_photos").get_to(read.evaluation_photos);
    value.at("evaluation_part").get_to(read.evaluation_part);
    read.held_out_photos = value.value("held_out_photos", int64_t{0});
    value.at("stores").get_to(read.stores);
    return read;
  });
  if (!plan) return plan;
  if (plan->trained_classes < 0 || plan->trained_classes > std::ssize(plan->classes)) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("a fine-tune's plan in jobs.db is damaged: it trains {} of {} classes",
                            plan->trained_classes, plan->classes.size()));
  }
  NDP_ASSIGN(plan->backbone, Hash256::FromHex(backbone));
  return plan;
}

Result<train::Recipe> RecipeOf(const rpc::FinetuneRequest& request, bool deep) {
  NDP_ASSIGN(auto recipe, train::RecipeFor(request.recipe, deep, request.continue_from != 0));
  recipe.seed = request.seed;
  if (request.epochs > 0) recipe.epochs = request.epochs;
  if (request.learning_rate) {
    // The whole cycle is scaled: where it ends stays the same share of its top.
    const double share = recipe.min_learning_rate / recipe.max_learning_rate;
    recipe.max_learning_rate = *request.learning_rate;
    recipe.min_learning_rate = share * recipe.max_learning_rate;
  }
  if (request.weight_decay) recipe.weight_decay = *request.weight_decay;
  if (request.mixup) recipe.mixup = *request.mixup;
  if (request.patience) recipe.patience = *request.patience;
  if (!request.replay) recipe.replay = false;
  NDP_RETURN_IF_ERROR(train::CheckRecipe(recipe));
  return recipe;
}

Status CheckFinetuneRequest(const rpc::FinetuneRequest& request) {
  if (request.num_runs < 1 || request.num_runs > kMaxRuns) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} runs are asked for: give 1 to {}", request.num_runs, kMaxRuns));
  }
  if (request.min_stores < 1 || request.min_stores > kMaxStores) {
    return Fail(
        ErrorCode::kInvalidArgument,
        fmt::format("{} PipeStores are asked for: give 1 to {}", request.min_stores, kMaxStores));
  }
  if (request.epochs < 0 || request.epochs > kMaxEpochs) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} epochs are asked for: give 1 to {}, or 0 for the recipe's",
                            request.epochs, kMaxEpochs));
  }
  if (request.delta_bits != 0 && request.delta_bits != 2 && request.delta_bits != 4 &&
      request.delta_bits != kMaxDeltaBits) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("deltas of {} bits are asked for: give 8, 4 or 2, or 0 for exact ones",
                            request.delta_bits));
  }
  if (request.views < 1 || request.views > rpc::kMaxViews) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} views of each photo are asked for: give 1 to {}", request.views,
                            rpc::kMaxViews));
  }
  if (auto recipe = RecipeOf(request, false); !recipe) {
    return std::unexpected(std::move(recipe).error());
  }
  if (auto precision = model::ParsePrecision(request.precision); !precision) {
    return std::unexpected(std::move(precision).error());
  }
  return CheckOnLoss(request.on_loss);
}

Status CheckRelabelRequest(const rpc::RelabelRequest& request) {
  if (auto precision = model::ParsePrecision(request.precision); !precision) {
    return std::unexpected(std::move(precision).error());
  }
  return CheckOnLoss(request.on_loss);
}

}  // namespace ndpipe::tuner
